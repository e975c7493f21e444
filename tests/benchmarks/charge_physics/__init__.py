"""What charges do in matter: trained models, structures and measurements."""
