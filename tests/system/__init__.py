"""The whole stack: controller and gateway in their containers, real engines, real models, asked over HTTP."""
