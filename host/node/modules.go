package node

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"

	"github.com/wray-project/wray/host/auth"
	"github.com/wray-project/wray/host/codecache"
	"github.com/wray-project/wray/host/worker"
	"github.com/wray-project/wray/internal/link"
	"github.com/wray-project/wray/internal/rpc"
)

// module is the bytes of a module that others may ask for.
type module struct {
	wasm []byte
	jobs int
}

// share lets other nodes ask for a job's modules, until the result is called.
func (k *tenantPeers) share(mods []Module) (hashes []string, end func()) {
	var sums [][32]byte
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, m := range mods {
		sum := sha256.Sum256(m.Wasm)
		sums, hashes = append(sums, sum), append(hashes, hex.EncodeToString(sum[:]))
		if k.modules[sum] == nil {
			k.modules[sum] = &module{wasm: m.Wasm}
		}
		k.modules[sum].jobs++
	}
	return hashes, func() {
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
	return inMemory{bytes.NewReader(m.wasm)}, int64(len(m.wasm)), nil
}

type inMemory struct{ *bytes.Reader }

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
	wasm := &moduleBuffer{budget: &k.n.modules}
	defer wasm.giveBack()
	if err := k.transfer(ctx, at, wasm, func(ctx context.Context) error {
		_, err := c.Blob(ctx, sum, maxModuleBytes, wasm)
		return err
	}); err != nil {
		return link.Message{}, err
	}
	var entry codecache.Entry
	if err = k.n.cfg.admits(k.t.name, wasm.Bytes()); err == nil {
		entry, err = k.n.cache.Get(ctx, k.t.name, wasm.Bytes())
	}
	k.n.admitted(k.t.name, "of another node", b.Hash, nil, err)
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
