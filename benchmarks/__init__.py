"""How fast Segue is: against the machine, against its peers, and as its data grows (`make bench`)."""
