"""Whether everything that landed has come to something: landed = done + filtered + waiting + parked + dead + missed."""
