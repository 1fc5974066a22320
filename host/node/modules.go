package node

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/wray-project/wray/host/auth"
	"github.com/wray-project/wray/host/codecache"
	"github.com/wray-project/wray/host/worker"
	"github.com/wray-project/wray/internal/link"
	"github.com/wray-project/wray/internal/rpc"
)

// A module goes to other nodes by a name that its tenant's workers alone are told:
// the hash of a head, which says whose it is and has a secret of this node's, and
// of the module after it. Who knows a module's bytes, or their hash, and is of
// another tenant, can neither get it by that nor find out whether it is here.

// module is the bytes of a module that others may ask for.
type module struct {
	head []byte
	wasm []byte
	jobs int
}

// secretSize is the length in bytes of what ends a head.
const secretSize = 32

// moduleHead is what a head says before its secret.
func (k *tenantPeers) moduleHead() []byte {
	return fmt.Appendf(nil, "wray module of tenant %s@%x\n", k.t.name, k.t.epoch())
}

// headLocked is the head of the tenant's modules on this node. mu is held.
func (k *tenantPeers) headLocked() []byte {
	if k.head == nil {
		var secret [secretSize]byte
		_, _ = rand.Read(secret[:]) // it never fails
		k.head = append(k.moduleHead(), secret[:]...)
	}
	return k.head
}

// share lets the tenant's workers on other nodes ask for a job's modules by the
// names that it returns, until end is called.
func (k *tenantPeers) share(mods []Module) (names []string, end func()) {
	k.mu.Lock()
	head := k.headLocked()
	k.mu.Unlock()
	sums := make([][32]byte, len(mods))
	for i, m := range mods {
		h := sha256.New()
		h.Write(head)
		h.Write(m.Wasm)
		h.Sum(sums[i][:0])
		names = append(names, hex.EncodeToString(sums[i][:]))
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for i, sum := range sums {
		if k.modules[sum] == nil {
			k.modules[sum] = &module{head: head, wasm: mods[i].Wasm}
		}
		k.modules[sum].jobs++
	}
	return names, func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		for _, sum := range sums {
			if m := k.modules[sum]; m.jobs > 1 {
				m.jobs--
			} else {
				delete(k.modules, sum)
			}
		}
	}
}

// blob is the Blob of rpc.Options.
func (p *peering) blob(_ context.Context, _ auth.Identity, sum [32]byte) (rpc.Blob, int64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := p.modules[sum]
	if m == nil {
		return nil, 0, fs.ErrNotExist
	}
	return inMemory{m.head, m.wasm}, int64(len(m.head) + len(m.wasm)), nil
}

// inMemory is two pieces of bytes, one after the other.
type inMemory [2][]byte

// ReadAt implements io.ReaderAt.
func (m inMemory) ReadAt(p []byte, off int64) (n int, err error) {
	for _, b := range m {
		if size := int64(len(b)); off >= size {
			off -= size
			continue
		}
		n += copy(p[n:], b[off:])
		off = 0
	}
	if n < len(p) {
		err = io.EOF
	}
	return n, err
}

// Close implements io.Closer.
func (inMemory) Close() error { return nil }

// module gets a module from the node of a peer, and has it compiled here.
func (k *tenantPeers) module(ctx context.Context, w *workerProcess, b *worker.PeerModuleBody) (link.Message, error) {
	at, _, err := k.nodeOf(w, b.Peer)
	if err != nil {
		return link.Message{}, err
	}
	var sum [32]byte
	if n, err := hex.Decode(sum[:], []byte(b.Hash)); err != nil || n != len(sum) {
		return link.Message{}, fmt.Errorf("%w: the hash %.80q", link.ErrProtocol, b.Hash)
	}
	e, ok := k.m.Nodes().Node(at.Name)
	if !ok {
		return link.Message{}, fmt.Errorf("node %s is not known", at.Name)
	}
	c, err := rpc.NewClient(k.m.Guard(), at.Name, e.Node.Addr)
	if err != nil {
		return link.Message{}, err
	}
	defer c.Close()
	buf := &moduleBuffer{budget: &k.n.modules}
	defer buf.giveBack()
	if err := k.transfer(ctx, at, buf, func(ctx context.Context) error {
		_, err := c.Blob(ctx, sum, maxModuleBytes, buf)
		return err
	}); err != nil {
		return link.Message{}, err
	}
	wasm, err := k.ownModule(buf.Bytes())
	if err != nil {
		return link.Message{}, fmt.Errorf("module %s of node %s: %w", b.Hash, at.Name, err)
	}
	var entry codecache.Entry
	if err = k.n.cfg.admits(k.t.name, wasm); err == nil {
		entry, err = k.n.cache.Get(ctx, k.t.code(), wasm)
	}
	k.n.admitted(k.t.name, "of another node", wasm, err)
	if err != nil {
		return link.Message{}, err
	}
	f, err := os.Open(entry.ArtifactPath)
	if err != nil {
		return link.Message{}, err
	}
	body, err := link.Marshal(worker.ModuleBody{Native: entry.NativePath, Hash: b.Hash})
	return link.Message{Body: body, Files: []*os.File{f}}, err
}

// ownModule takes the head off a module that came, which is to be this tenant's: a
// worker may ask for what it likes, and the node of a peer give it.
func (k *tenantPeers) ownModule(b []byte) ([]byte, error) {
	rest, ok := bytes.CutPrefix(b, k.moduleHead())
	if !ok || len(rest) < secretSize {
		return nil, fs.ErrNotExist
	}
	return rest[secretSize:], nil
}
