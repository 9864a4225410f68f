"""One file per kind of stage; they never import each other."""
