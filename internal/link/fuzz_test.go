package link

import (
	"bytes"
	"os"
	"testing"

	"github.com/wray-project/wray"
)

// FuzzDecode feeds a stream, cut as the input says, to the decoder, and to
// another one in a single piece. Both must give the same frames, or fail both;
// memory and descriptors stay bounded and none is lost.
func FuzzDecode(f *testing.F) {
	var h [headerSize]byte
	putHeader(&h, 3, classNotice, 0, 5, 0)
	f.Add(append(h[:], "hello"...), []byte{1}, uint8(0))
	putHeader(&h, 3, classRequest, 2, 0, 9)
	f.Add(h[:], []byte{3, 200, 1}, uint8(2))
	putHeader(&h, 3, classReply, 0, 1<<31, 9)
	f.Add(h[:], []byte{}, uint8(1))
	two := append(append([]byte(nil), h[:]...), h[:]...)
	f.Add(two, []byte{17}, uint8(3))

	f.Fuzz(func(t *testing.T, stream, cuts []byte, files uint8) {
		const maxBody, maxFiles = 1 << 12, 8
		nfiles := int(files % 16)
		open := func() []*os.File {
			var fs []*os.File
			for range nfiles {
				// Never opened: the decoder only carries and closes them.
				fs = append(fs, new(os.File))
			}
			return fs
		}
		run := func(cut bool) (frames []frame, failed bool) {
			d := decoder{maxBody: maxBody, maxFiles: maxFiles}
			owned, closed := open(), 0
			emit := func(fr frame) error {
				closed += len(fr.Files)
				frames = append(frames, fr)
				return nil
			}
			rest, first := stream, owned
			for i := 0; len(rest) > 0 && !failed; i++ {
				n := len(rest)
				if cut && len(cuts) > 0 {
					n = min(n, 1+int(cuts[i%len(cuts)]))
				}
				failed = d.feed(rest[:n], first, emit) != nil
				rest, first = rest[n:], nil
				if c := cap(d.body); c > maxBody+bodyStep {
					t.Fatalf("a body took %d bytes", c)
				}
			}
			if left := len(d.queued) + len(d.taken); len(stream) > 0 && closed+left != nfiles {
				t.Fatalf("%d files in, %d out, %d held", nfiles, closed, left)
			}
			return frames, failed
		}
		whole, wholeFailed := run(false)
		pieces, piecesFailed := run(true)
		if wholeFailed != piecesFailed && nfiles == 0 {
			t.Fatalf("whole failed %v, pieces failed %v", wholeFailed, piecesFailed)
		}
		if nfiles == 0 && len(whole) != len(pieces) {
			t.Fatalf("%d frames whole, %d in pieces", len(whole), len(pieces))
		}
		for i := range min(len(whole), len(pieces)) {
			a, b := whole[i], pieces[i]
			if a.class != b.class || a.id != b.id || a.Kind != b.Kind || !bytes.Equal(a.Body, b.Body) || len(a.Files) != len(b.Files) {
				t.Fatalf("frame %d: %+v, in pieces %+v", i, a, b)
			}
			if a.class == classFailure {
				if e, err := decodeFailure(a.Body); err == nil && e.Code == wray.CodeOK {
					t.Fatal("a failure without a code")
				}
			}
		}
	})
}
