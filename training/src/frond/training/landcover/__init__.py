"""Land cover: building, road, water and vegetation as masks, in imagery of about a metre a pixel."""
