"""Container engines behind one seam: `docker` for real, `memory` without an engine, `faulty` around either to make calls fail."""
