"""`poste top`: what the page shows, in a terminal; and the line of it that `poste up` keeps at its end."""
