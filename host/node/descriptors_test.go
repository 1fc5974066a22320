package node

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/wray-project/wray/host/worker"
	"github.com/wray-project/wray/internal/link"
)

// Tenants get what the node does not need, also where it may have few.
func TestReservedFiles(t *testing.T) {
	for limit, want := range map[int]int{256: 128, 1024: 512, 4096: 1024, 1 << 20: 1 << 18} {
		if got := reservedFiles(limit); got != want {
			t.Errorf("of %d descriptors %d are the node's, want %d", limit, got, want)
		}
	}
	if newDescriptors(0) != nil {
		t.Error("an unknown limit bounds something")
	}
}

// Files that come with a message of a kind that takes none are closed at once.
func TestFilesOfOtherKinds(t *testing.T) {
	w := &workerProcess{runs: map[uint64]*run{}}
	for _, kind := range []link.Kind{worker.KindOutput, worker.KindFS, worker.KindState, worker.KindPeerSend, worker.KindPeerFetch, 99} {
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.handle(t.Context(), link.Message{Kind: kind, Files: []*os.File{f}})
		if !errors.Is(err, link.ErrProtocol) || !strings.Contains(err.Error(), "which takes none") {
			t.Errorf("message %d with a file: %v", kind, err)
		}
		if f.Close() == nil {
			t.Errorf("the file of message %d was left open", kind)
		}
	}
}
