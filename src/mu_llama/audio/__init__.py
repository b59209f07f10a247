"""Sound in: reading, resampling, and choosing which seconds are used."""
