"""The shell of Ambara: carries out what `handlers` decides."""
