package sdk

// The pool needs no lock: one thread runs all goroutines, and changes between
// them only at calls, of which there is none here.
var packets *packet

// The first packet is part of the snapshot: the first task of every sandbox
// would make it anew.
func init() { newPacket(0).free() }

func takePacket() *packet {
	p := packets
	if p != nil {
		packets = p.next
	}
	return p
}

func givePacket(p *packet) { p.next, packets = packets, p }
