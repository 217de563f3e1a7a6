"""A stand-in for AWS EC2: moto's state behind a layer that keeps AWS's documented promises."""
