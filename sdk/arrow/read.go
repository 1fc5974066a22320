package arrow

import (
	"bytes"
	"fmt"
	"unsafe"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/ipc"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/wray-project/wray"
)

// decode reads the stream p.
func decode(p []byte) (r arrow.Record, err error) {
	defer func() {
		if v := recover(); v != nil { // package array panics over what does not fit together
			r, err = nil, damaged("%v", v)
		}
	}()
	if uintptr(unsafe.Pointer(unsafe.SliceData(p)))%8 != 0 {
		p = append(aligned(len(p))[:0], p...)
	}
	first, rest, err := cutMessage(p)
	if err != nil {
		return nil, err
	}
	if first == nil || first.kind != headSchema {
		return nil, damaged("it does not begin with a schema")
	}
	left := maxFields
	l := loader{fields: first.meta.fields(first.head, 1, 0, &left), dictionaries: map[int64]*batch{}}
	first.meta.vector(first.head, 2, 4) // metadata
	if at := first.meta.field(first.head, 0); first.meta.bad || at >= 0 && first.meta.u16(at) != 0 {
		return nil, damaged("its schema is not one of at most %d little-endian fields", maxFields)
	}
	schema, err := schemaOf(first.whole)
	if err != nil {
		return nil, err
	}
	var found *batch
	for len(rest) > 0 {
		var m *message
		if m, rest, err = cutMessage(rest); err != nil {
			return nil, err
		}
		if m == nil {
			break
		}
		switch {
		case m.kind == headDictionary:
			err = l.dictionary(m)
		case m.kind == headRecordBatch && found == nil:
			found, err = m.batch(m.head)
		default:
			err = damaged("it has a message of kind %d too many", m.kind)
		}
		if err != nil {
			return nil, err
		}
	}
	if found == nil {
		return nil, damaged("it has no batch")
	}
	return l.record(found, schema)
}

// loader makes arrays of a stream's buffers.
type loader struct {
	fields       []field
	dictionaries map[int64]*batch
}

// dictionary keeps a DictionaryBatch for when a column needs it.
func (l *loader) dictionary(m *message) error {
	f := &m.meta
	id := int64(0)
	if at := f.field(m.head, 0); at >= 0 {
		id = f.i64(at)
	}
	if at := f.field(m.head, 2); at >= 0 && f.u8(at) != 0 {
		return damaged("a dictionary comes in parts")
	}
	t := f.table(m.head, 1)
	if t < 0 || l.dictionaries[id] != nil {
		return damaged("dictionary %d has no values, or two", id)
	}
	b, err := m.batch(t)
	l.dictionaries[id] = b
	return err
}

// schemaOf reads a message of a schema.
func schemaOf(message []byte) (*arrow.Schema, error) {
	r, err := ipc.NewReader(bytes.NewReader(append(bytes.Clone(message), endOfStream...)))
	if err != nil {
		return nil, damaged("%v", err)
	}
	defer r.Release()
	s := r.Schema()
	for _, f := range s.Fields() {
		if err := supported(f.Type, 0); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// record makes arrays over the batch's buffers.
func (l *loader) record(b *batch, schema *arrow.Schema) (arrow.Record, error) {
	cols := make([]arrow.Array, schema.NumFields())
	if len(l.fields) != len(cols) {
		return nil, damaged("a schema of %d fields and one of %d", len(cols), len(l.fields))
	}
	for i, f := range schema.Fields() {
		d, err := l.array(b, f.Type, &l.fields[i])
		if err != nil {
			return nil, fmt.Errorf("column %q: %w", f.Name, err)
		}
		if int64(d.Len()) != b.rows {
			return nil, damaged("column %q has %d rows of %d", f.Name, d.Len(), b.rows)
		}
		if err := check(d, f.Type); err != nil {
			return nil, fmt.Errorf("column %q: %w", f.Name, err)
		}
		cols[i] = array.MakeFromData(d)
	}
	if len(b.nodes) > 0 || len(b.buffers) > 0 {
		return nil, damaged("it has more arrays than its schema has fields")
	}
	return array.NewRecord(schema, cols, b.rows), nil
}

// array takes the nodes and buffers of one array off b. They come in the order
// of a walk through the fields; check looks at what they hold.
func (l *loader) array(b *batch, t arrow.DataType, f *field) (*array.Data, error) {
	of := storage(t)
	if len(b.nodes) == 0 {
		return nil, damaged("it has fewer arrays than its schema has fields")
	}
	n := b.nodes[0]
	b.nodes = b.nodes[1:]
	count := len(of.Layout().Buffers)
	if of.ID() == arrow.NULL {
		count = 0
	}
	if len(b.buffers) < count {
		return nil, damaged("it has fewer buffers than its fields need")
	}
	bufs := make([]*memory.Buffer, max(count, 1))
	for i, p := range b.buffers[:count] {
		if len(p) > 0 {
			bufs[i] = memory.NewBufferBytes(p)
		}
	}
	b.buffers = b.buffers[count:]
	length, nulls := int(n.length), int(n.nulls)
	if d, ok := of.(*arrow.DictionaryType); ok {
		values, err := l.values(d.ValueType, f)
		if err != nil {
			return nil, err
		}
		return array.NewDataWithDictionary(t, length, bufs, nulls, 0, values), nil
	}
	types := childTypes(of)
	if len(types) != len(f.children) || f.dictionary {
		return nil, damaged("a field of type %s has %d children", of, len(f.children))
	}
	var children []arrow.ArrayData
	for i, c := range types {
		d, err := l.array(b, c, &f.children[i])
		if err != nil {
			return nil, err
		}
		children = append(children, d)
	}
	if of.ID() == arrow.NULL {
		nulls = length
	}
	return array.NewData(t, length, bufs, children, nulls, 0), nil
}

// values makes the array of a dictionary's values.
func (l *loader) values(t arrow.DataType, f *field) (*array.Data, error) {
	d := l.dictionaries[f.id]
	if d == nil || !f.dictionary {
		return nil, damaged("dictionary %d is missing", f.id)
	}
	b := *d // others may have the same
	return l.array(&b, t, &field{children: f.children})
}

// storage is what values of type t are kept as.
func storage(t arrow.DataType) arrow.DataType {
	for {
		e, ok := t.(arrow.ExtensionType)
		if !ok {
			return t
		}
		t = e.StorageType()
	}
}

// childTypes returns the types of the arrays below one of type t, which is
// supported.
func childTypes(t arrow.DataType) []arrow.DataType {
	switch t := t.(type) {
	case *arrow.MapType:
		return []arrow.DataType{t.Elem()}
	case arrow.ListLikeType:
		return []arrow.DataType{t.Elem()}
	case *arrow.StructType:
		var c []arrow.DataType
		for _, f := range t.Fields() {
			c = append(c, f.Type)
		}
		return c
	}
	return nil
}

// supported reports a type that no Batch may have.
func supported(t arrow.DataType, depth int) error {
	if depth > maxDepth {
		return wray.Errorf(wray.CodeBadArgument, "an Arrow type is nested deeper than %d", maxDepth)
	}
	t = storage(t)
	switch t := t.(type) {
	case *arrow.NullType, *arrow.BinaryType, *arrow.StringType, *arrow.LargeBinaryType, *arrow.LargeStringType:
		return nil
	case *arrow.DictionaryType:
		return supported(t.ValueType, depth+1)
	case *arrow.ListType, *arrow.LargeListType, *arrow.FixedSizeListType, *arrow.StructType, *arrow.MapType:
		for _, c := range childTypes(t) {
			if err := supported(c, depth+1); err != nil {
				return err
			}
		}
		return nil
	case arrow.DecimalType:
		// The greatest scale is the greatest precision, of 256 bits; what is
		// printed is divided by its power of ten.
		if s := t.GetScale(); t.GetPrecision() < 1 || t.GetPrecision() > 76 || s < -76 || s > 76 {
			return damaged("a decimal type of precision %d and scale %d", t.GetPrecision(), s)
		}
		return nil
	case *arrow.TimestampType:
		if _, err := t.GetZone(); err != nil || t.Unit < arrow.Second || t.Unit > arrow.Nanosecond {
			return damaged("a type of times of unit %d in the zone %q", t.Unit, t.TimeZone)
		}
		return nil
	case arrow.FixedWidthDataType:
		return nil
	}
	return &wray.Error{Code: wray.CodeBadArgument, Message: fmt.Sprintf("a value cannot hold the Arrow type %s", t),
		Hint: "convert the column first"}
}
