"""Decoding libraries behind one interface (`read.Decoder`): FFmpeg first, libsndfile for what it refuses."""
