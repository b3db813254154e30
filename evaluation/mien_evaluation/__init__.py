"""How near a face generator comes to whom it shows: `mien model evaluate` measures it, `animate` lets it be seen."""
