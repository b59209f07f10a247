"""Decoding libraries behind one interface (`audio.read.AudioDecoder`): FFmpeg first, libsndfile for what it refuses."""
