"""Several devices and several processes: the mesh, sharding rules, transfer, the start."""
