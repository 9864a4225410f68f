"""A notebook without internet: what it needs, and the proof that it runs."""
