package rt

import (
	"bytes"
	"io"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wray-project/wray/internal/fd"
)

// TestBufferBecomesFile holds that a slice of newBuffer that is put whole is the
// file that is given away, sealed and without holes, and that what is written to
// the slice afterwards is not in the file.
func TestBufferBecomesFile(t *testing.T) {
	for _, n := range []int{64 << 10, 64<<10 + 1, 3 << 20} {
		b := newBuffer(n)
		if len(b) != n || cap(b) != n {
			t.Fatalf("%d of %d bytes, want %d", len(b), cap(b), n)
		}
		b[0], b[n-1] = 1, 2 // the pages between are not there yet
		if f := takeBuffer(b[:n-1]); f != nil {
			t.Fatal("a part was taken")
		}
		if f := takeBuffer(b[1:]); f != nil {
			t.Fatal("an end was taken")
		}
		f := takeBuffer(b)
		if f == nil {
			t.Fatal("it was not taken")
		}
		if takeBuffer(b) != nil {
			t.Error("it was taken twice")
		}
		want := bytes.Clone(b)
		for i := range b {
			b[i] = 9
		}
		got, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<30))
		if err != nil || len(got)%(64<<10) != 0 || !bytes.Equal(got[:n], want) || bytes.Count(got[n:], []byte{0}) != len(got)-n {
			t.Errorf("the file has %d bytes, %v", len(got), err)
		}
		if bytes.Count(b, []byte{9}) != n {
			t.Error("what was written after is not in the slice")
		}
		sealed(t, f, int64(len(got)))
	}
}

// sealed holds that nobody can change the file, of size bytes, and that it has
// no holes.
func sealed(t *testing.T, f *os.File, size int64) {
	t.Helper()
	if _, err := f.WriteAt([]byte{1}, 0); err == nil {
		t.Error("the file can be written to")
	}
	err := fd.Do(f, func(fd int) error {
		var st unix.Stat_t
		err := unix.Fstat(fd, &st)
		if st.Blocks*512 < size {
			t.Errorf("%d blocks of 512 bytes in %d bytes", st.Blocks, size)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
