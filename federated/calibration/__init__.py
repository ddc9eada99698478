"""How far a classifier's probabilities can be believed, from statistics that add up over sites."""
