"""The painter behind the synthetic source: street layout, drawing, surfaces, light and weather."""
