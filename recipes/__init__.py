"""How the weights that the package contains were made, one package a model."""
