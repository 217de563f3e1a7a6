"""Templates: what the site's files offer, as plain JSON documents."""
