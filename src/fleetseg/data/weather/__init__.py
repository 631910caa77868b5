"""Weather on photographs: fog, rain, night, snow and glare, by the physics of synthetic streets."""
