"""Networks, one readable module each."""
