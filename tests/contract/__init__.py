"""The container driver contract, one suite for all drivers."""
