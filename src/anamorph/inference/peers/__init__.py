"""Other people's registration tools, each in a virtual environment of its own."""
