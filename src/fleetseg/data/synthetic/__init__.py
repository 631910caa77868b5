"""The renderer of the synthetic source: street layout, drawing, surfaces, light and weather."""
