"""An offline notebook of a run: its bundle, its upload, and a test that it runs without a network."""
