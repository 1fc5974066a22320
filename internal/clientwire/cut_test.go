package clientwire

import (
	"bytes"
	"testing"
)

// TestCut cuts batches that are longer than a notice into notices, without a
// byte lost.
func TestCut(t *testing.T) {
	var batch []byte
	for _, n := range []int{10, MaxBatch / 2, MaxBatch / 2, 3, MaxBatch - HeaderSize - 8, 0, 2 * MaxBatch, 5} {
		batch = Append(batch, OpDrop, 1, 2, make([]byte, n))
	}
	whole, again := batch, []byte(nil)
	for len(batch) > 0 {
		some := Cut(batch)
		batch = batch[len(some):]
		again = append(again, some...)
		records := 0
		for rest := some; len(rest) > 0; records++ {
			var err error
			if _, rest, err = Next(rest); err != nil {
				t.Fatal(err)
			}
		}
		if records == 0 || len(some) > MaxBatch && records > 1 {
			t.Errorf("%d records of %d bytes", records, len(some))
		}
	}
	if !bytes.Equal(again, whole) {
		t.Error("bytes are lost")
	}
}
