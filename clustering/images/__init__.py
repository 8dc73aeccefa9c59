"""Images: vector quantisation with palettes and codebooks, and superpixels."""
