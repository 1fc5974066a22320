//go:build !wasip1

package sdk

import "sync"

var packets sync.Pool // of *packet

func takePacket() *packet {
	p, _ := packets.Get().(*packet)
	return p
}

func givePacket(p *packet) { packets.Put(p) }
