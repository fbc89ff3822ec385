"""WHO one is: the study's certificate authority, a party's credentials, seals between parties."""
