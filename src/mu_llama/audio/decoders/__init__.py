"""Decoding libraries behind one interface (`read.AudioDecoder`): FFmpeg first, libsndfile for what it refuses."""
