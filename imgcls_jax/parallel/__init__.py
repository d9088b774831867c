"""Several devices and processes: the mesh, sharding rules, transfer, starting processes."""
