"""The command `k12ai`: a thin shell over the client, and `serve`."""
