package gossip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// transport carries gossip for memberlist: packets by UDP, streams over what
// the node gives it.
type transport struct {
	advertise string // host:port
	packets   net.PacketConn
	streams   net.Listener
	dial      func(ctx context.Context, addr string) (net.Conn, error)

	packetCh chan *memberlist.Packet
	streamCh chan net.Conn
	done     chan struct{} // closed by Shutdown: who sends into the channels gives up

	shut sync.Once
	wg   sync.WaitGroup
}

var _ memberlist.Transport = (*transport)(nil)

// maxPacket is the longest datagram that is read.
const maxPacket = 65536

func newTransport(addr string, o Options) (*transport, error) {
	t := &transport{advertise: addr, packets: o.Packets, streams: o.Streams, dial: o.Dial,
		packetCh: make(chan *memberlist.Packet, 64), streamCh: make(chan net.Conn), done: make(chan struct{})}
	if t.packets == nil || t.streams == nil || t.dial == nil {
		return nil, errors.New("packets, streams and a way to dial are needed")
	}
	t.wg.Go(t.readPackets)
	t.wg.Go(t.acceptStreams)
	return t, nil
}

func (t *transport) readPackets() {
	buf := make([]byte, maxPacket)
	for {
		n, from, err := t.packets.ReadFrom(buf)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			select { // such as what the kernel says of an earlier packet
			case <-t.done:
				return
			case <-time.After(time.Millisecond):
				continue
			}
		}
		if n == 0 {
			continue
		}
		p := &memberlist.Packet{Buf: append([]byte(nil), buf[:n]...), From: from, Timestamp: time.Now()}
		select {
		case t.packetCh <- p:
		case <-t.done:
			return
		}
	}
}

func (t *transport) acceptStreams() {
	for {
		c, err := t.streams.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			select { // such as no descriptors
			case <-t.done:
				return
			case <-time.After(100 * time.Millisecond):
				continue
			}
		}
		select {
		case t.streamCh <- c:
		case <-t.done:
			c.Close()
			return
		}
	}
}

// FinalAdvertiseAddr implements memberlist.Transport.
func (t *transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	a, err := net.ResolveTCPAddr("tcp", t.advertise)
	if err != nil {
		return nil, 0, err
	}
	ip := a.IP
	if v4 := ip.To4(); v4 != nil {
		ip = v4
	}
	if ip == nil || ip.IsUnspecified() {
		return nil, 0, fmt.Errorf("others cannot reach %s: name an address of this machine", t.advertise)
	}
	return ip, a.Port, nil
}

// WriteTo implements memberlist.Transport.
func (t *transport) WriteTo(b []byte, addr string) (time.Time, error) {
	a, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		return time.Time{}, err
	}
	_, err = t.packets.WriteTo(b, a)
	return time.Now(), err
}

// PacketCh implements memberlist.Transport.
func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.packetCh }

// StreamCh implements memberlist.Transport.
func (t *transport) StreamCh() <-chan net.Conn { return t.streamCh }

// DialTimeout implements memberlist.Transport.
func (t *transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return t.dial(ctx, addr)
}

// Shutdown implements memberlist.Transport. It is idempotent.
func (t *transport) Shutdown() error {
	var err error
	t.shut.Do(func() {
		close(t.done)
		err = errors.Join(t.packets.Close(), t.streams.Close())
		t.wg.Wait()
	})
	return err
}
