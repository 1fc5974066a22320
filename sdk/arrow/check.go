package arrow

import (
	"unsafe"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

// check reports what an array of type t must not be: buffers that are shorter
// than its length needs, or offsets that lead out of what they point into. What
// passes can be read anywhere without a panic.
func check(d arrow.ArrayData, t arrow.DataType) error {
	of := storage(t)
	n, off := int64(d.Len()), int64(d.Offset())
	end := n + off // both are bounded
	bufs := d.Buffers()
	if of.ID() == arrow.NULL {
		return nil
	}
	if p := bytesOf(bufs, 0); len(p) > 0 && int64(len(p)) < (end+7)/8 || len(p) == 0 && d.NullN() > 0 {
		return damaged("a bitmap of %d bytes for %d values", len(p), end)
	}
	child := func(i int, need int64) error {
		c := d.Children()[i]
		if int64(c.Len()) < need {
			return damaged("%d values where %d are needed", c.Len(), need)
		}
		return check(c, childTypes(of)[i])
	}
	switch of := of.(type) {
	case *arrow.BinaryType, *arrow.StringType:
		return offsets[int32](bytesOf(bufs, 1), n, end, int64(len(bytesOf(bufs, 2))))
	case *arrow.LargeBinaryType, *arrow.LargeStringType:
		return offsets[int64](bytesOf(bufs, 1), n, end, int64(len(bytesOf(bufs, 2))))
	case *arrow.LargeListType:
		if err := offsets[int64](bytesOf(bufs, 1), n, end, int64(d.Children()[0].Len())); err != nil {
			return err
		}
		return child(0, 0)
	case *arrow.ListType, *arrow.MapType:
		if err := offsets[int32](bytesOf(bufs, 1), n, end, int64(d.Children()[0].Len())); err != nil {
			return err
		}
		return child(0, 0)
	case *arrow.FixedSizeListType:
		// Both factors are bounded: maxRows, and 32 bits.
		if of.Len() < 0 || of.Len() > 0 && end > (1<<62)/int64(of.Len()) {
			return damaged("lists of %d", of.Len())
		}
		return child(0, end*int64(of.Len()))
	case *arrow.StructType:
		for i := range d.Children() {
			if err := child(i, end); err != nil {
				return err
			}
		}
		return nil
	case *arrow.DictionaryType:
		return checkIndices(d, of, end)
	case arrow.FixedWidthDataType:
		return fixed(bytesOf(bufs, 1), end, int64(of.BitWidth()))
	}
	return supported(of, 0)
}

func bytesOf(bufs []*memory.Buffer, i int) []byte {
	if i >= len(bufs) || bufs[i] == nil {
		return nil
	}
	return bufs[i].Bytes()
}

// fixed reports a buffer that is no array of n values of bits each.
func fixed(p []byte, n, bits int64) error {
	if bits < 0 || bits > 0 && n > (1<<62)/bits || int64(len(p)) < (n*bits+7)/8 {
		return damaged("%d bytes for %d values of %d bits", len(p), n, bits)
	}
	return straight(p)
}

// straight reports a buffer whose address no number may have.
func straight(p []byte) error {
	if uintptr(unsafe.Pointer(unsafe.SliceData(p)))%8 != 0 && len(p) > 0 {
		return damaged("a buffer is not aligned to 8 bytes")
	}
	return nil
}

// offsets reports a buffer of offsets that do not rise from 0 or more to most
// at most.
func offsets[T int32 | int64](p []byte, n, end, most int64) error {
	var size = int64(unsafe.Sizeof(T(0)))
	if n == 0 && len(p) == 0 {
		return nil
	}
	if int64(len(p))/size < end+1 {
		return damaged("%d bytes of offsets for %d values", len(p), end)
	}
	if err := straight(p); err != nil {
		return err
	}
	s := unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(p))), end+1)
	// Negative if any of them falls, or the first is negative: the first
	// difference that is wrong cannot overflow, as what it is of is not.
	fall, last := s[0], s[0]
	for _, x := range s[1:] {
		fall |= x - last
		last = x
	}
	if fall < 0 || int64(last) > most {
		return damaged("offsets that do not rise to %d", most)
	}
	return nil
}

// checkIndices reports indices that lead out of their dictionary.
func checkIndices(d arrow.ArrayData, t *arrow.DictionaryType, end int64) error {
	p := bytesOf(d.Buffers(), 1)
	if err := fixed(p, end, int64(t.IndexType.(arrow.FixedWidthDataType).BitWidth())); err != nil {
		return err
	}
	values := d.Dictionary()
	if values == nil {
		return damaged("a dictionary is missing")
	}
	if err := check(values, t.ValueType); err != nil {
		return err
	}
	a, ok := array.MakeFromData(d).(*array.Dictionary)
	if !ok {
		return damaged("a dictionary of another kind")
	}
	defer a.Release()
	for i := range a.Len() {
		if a.IsNull(i) {
			continue
		}
		if x := a.GetValueIndex(i); x < 0 || x >= values.Len() {
			return damaged("index %d into a dictionary of %d", x, values.Len())
		}
	}
	return nil
}
