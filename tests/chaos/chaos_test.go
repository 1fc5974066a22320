// Package chaos runs workloads on real nodes, each on a host of its own, while
// workers, nodes, heads and links fail, and holds them to the right results.
package chaos
