"""What is done from outside the appliance: making images, bringing the stack up and down, later deploying to a box."""
