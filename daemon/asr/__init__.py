"""Speech recognition as a library: knows neither database nor daemon."""
