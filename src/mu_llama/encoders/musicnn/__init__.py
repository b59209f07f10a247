"""MusiCNN: log-mel spectrogram, network, encoder."""
