"""Study of dropout in regression: the volume of a cylinder, and the same volume in bins."""
