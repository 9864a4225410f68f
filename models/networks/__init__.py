"""Backbones of the neural stages. These files import torch and the libraries of the models at the top."""
