package clientwire

// PlacementGroup is a placement group of a job of the node that tells.
type PlacementGroup struct {
	ID       string   `cbor:"1,keyasint" json:"id"`
	Name     string   `cbor:"2,keyasint,omitempty" json:"name,omitempty"`
	Job      uint32   `cbor:"3,keyasint" json:"job"`      // by its number
	Strategy string   `cbor:"4,keyasint" json:"strategy"` // such as strict spread
	State    string   `cbor:"5,keyasint" json:"state"`    // see the Group constants
	Seconds  int64    `cbor:"6,keyasint" json:"seconds"`  // that it is in that state
	Tasks    int64    `cbor:"7,keyasint" json:"tasks_waiting"`
	Why      string   `cbor:"8,keyasint,omitempty" json:"why,omitempty"` // it is not ready, in words
	Bundles  []Bundle `cbor:"9,keyasint" json:"bundles"`
}

// States of placement groups.
const (
	GroupWaiting   = "waiting"   // for nodes with room for its bundles
	GroupReserving = "reserving" // nodes were asked to hold them
	GroupReady     = "ready"
)

// Bundle is what a placement group sets aside on one node.
type Bundle struct {
	Has  string  `cbor:"1,keyasint" json:"has"`                      // in words, such as 1 CPU, 2 gpu
	Node string  `cbor:"2,keyasint,omitempty" json:"node,omitempty"` // empty: it is not placed
	CPU  float64 `cbor:"3,keyasint" json:"free_cpu"`                 // cores that nothing runs on, as far as is known
}
