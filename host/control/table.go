package control

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"

	"github.com/fxamacker/cbor/v2"
)

// MaxName is the most bytes of a record's name, within its tenant and kind.
const MaxName = 300

// Key is where a record is kept: kind/tenant/name. Kind and tenant are of
// letters, digits, dots, dashes and underscores, 64 at most, so that no name
// leads out of its tenant; the name is any bytes. The records of a kind begin
// with kind/, those of a tenant's with kind/tenant/.
func Key(kind, tenant, name string) (string, error) {
	if err := checkPart("kind", kind); err != nil {
		return "", err
	}
	if err := checkPart("tenant", tenant); err != nil {
		return "", err
	}
	if name == "" {
		return "", fmt.Errorf("%w: a %s of tenant %s without a name", ErrInvalid, kind, tenant)
	}
	if len(name) > MaxName {
		return "", &LimitError{What: fmt.Sprintf("name of a %s, %.20q…,", kind, name), Size: len(name), Limit: MaxName, Unit: "bytes"}
	}
	return kind + "/" + tenant + "/" + name, nil
}

// SplitKey takes apart what Key made.
func SplitKey(key string) (kind, tenant, name string, err error) {
	parts := strings.SplitN(key, "/", 3)
	if len(parts) == 3 {
		var again string
		if again, err = Key(parts[0], parts[1], parts[2]); err == nil && again == key {
			return parts[0], parts[1], parts[2], nil
		}
	}
	return "", "", "", fmt.Errorf("%w: %.60q is no kind/tenant/name", ErrInvalid, key)
}

func checkPart(what, s string) error {
	if s == "" || len(s) > 64 {
		return fmt.Errorf("%w: %s %.70q has %d bytes, it must have 1 to 64", ErrInvalid, what, s, len(s))
	}
	for _, c := range []byte(s) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '-' || c == '_') {
			return fmt.Errorf("%w: %s %q has the character %q; letters, digits, dots, dashes and underscores are allowed", ErrInvalid, what, s, c)
		}
	}
	return nil
}

// ErrNewer says that a record was written by a newer wray, which knows more of
// it than this one and would lose that if this one wrote it.
var ErrNewer = errors.New("written by a newer version")

// Table is the records of one kind, as values of type T, encoded in CBOR. Its
// fields have numbers (`cbor:"1,keyasint"`), which are never used again, so
// that versions of wray which are in one cluster for the time of an upgrade
// read each other's.
type Table[T any] struct {
	s      Store
	kind   string
	format byte
}

// NewTable returns the table of a kind. Its format is raised whenever T gets a
// field that a version without it must not drop: that version reads such
// records and refuses to write them, with ErrNewer.
func NewTable[T any](s Store, kind string, format byte) Table[T] {
	return Table[T]{s: s, kind: kind, format: format}
}

// Entry is a value and where it is kept.
type Entry[T any] struct {
	Tenant, Name string
	Value        T
	Record       Record // as it was read: its Modified is the condition of Update
	format       byte
}

// Get returns the entry, or ErrNotFound.
func (t Table[T]) Get(ctx context.Context, tenant, name string) (Entry[T], error) {
	key, err := Key(t.kind, tenant, name)
	if err != nil {
		return Entry[T]{}, err
	}
	r, err := t.s.Get(ctx, key)
	if err != nil {
		return Entry[T]{}, fmt.Errorf("%s %q of tenant %s: %w", t.kind, name, tenant, err)
	}
	return t.Decode(r)
}

// Create makes an entry that is not there. Where it is, the error is a
// *ConflictError, and the entry is the one found, unless it cannot be read.
func (t Table[T]) Create(ctx context.Context, tenant, name string, v T) (Entry[T], error) {
	key, err := Key(t.kind, tenant, name)
	if err != nil {
		return Entry[T]{}, err
	}
	value, err := t.Encode(v)
	if err != nil {
		return Entry[T]{}, err
	}
	rev, err := t.s.Commit(ctx, Txn{If: []Cond{Absent(key)}, Do: []Op{Put(key, value)}})
	if err != nil {
		err = fmt.Errorf("make %s %q of tenant %s: %w", t.kind, name, tenant, err)
		var conflict *ConflictError
		if errors.As(err, &conflict) {
			if e, derr := t.Decode(conflict.Found); derr == nil {
				return e, err
			}
		}
		return Entry[T]{}, err
	}
	return Entry[T]{Tenant: tenant, Name: name, Value: v, format: t.format,
		Record: Record{Key: key, Value: value, Created: rev, Modified: rev}}, nil
}

// Update writes the entry's value, if nobody wrote since it was read, and
// returns it as it is now. A lease stays as it was.
func (t Table[T]) Update(ctx context.Context, e Entry[T]) (Entry[T], error) {
	if e.format > t.format {
		return e, fmt.Errorf("write %s %q of tenant %s, format %d, here %d: %w: upgrade this node", t.kind, e.Name, e.Tenant, e.format, t.format, ErrNewer)
	}
	value, err := t.Encode(e.Value)
	if err != nil {
		return e, err
	}
	rev, err := t.s.Commit(ctx, Txn{
		If: []Cond{At(e.Record.Key, e.Record.Modified)},
		Do: []Op{PutLeased(e.Record.Key, value, e.Record.Lease)},
	})
	if err != nil {
		return e, fmt.Errorf("write %s %q of tenant %s: %w", t.kind, e.Name, e.Tenant, err)
	}
	e.Record.Value, e.Record.Modified, e.format = value, rev, t.format
	return e, nil
}

// Modify reads an entry, has f change its value, and writes it, again and again
// while others write in between. An error of f ends it, and nothing is written.
// As any commit that ends with ErrUnavailable, it may have been done.
func (t Table[T]) Modify(ctx context.Context, tenant, name string, f func(*T) error) (Entry[T], error) {
	for {
		e, err := t.Get(ctx, tenant, name)
		if err != nil {
			return e, err
		}
		if err := f(&e.Value); err != nil {
			return e, err
		}
		now, err := t.Update(ctx, e)
		if !errors.Is(err, ErrConflict) {
			return now, err
		}
	}
}

// Delete removes the entry, if nobody wrote since it was read.
func (t Table[T]) Delete(ctx context.Context, e Entry[T]) error {
	_, err := t.s.Commit(ctx, Txn{If: []Cond{At(e.Record.Key, e.Record.Modified)}, Do: []Op{Delete(e.Record.Key)}})
	if err != nil {
		return fmt.Errorf("remove %s %q of tenant %s: %w", t.kind, e.Name, e.Tenant, err)
	}
	return nil
}

// All yields the entries of a tenant, or of all tenants when it is empty, as
// they are in one state, in order of keys, and last an error where there is one.
func (t Table[T]) All(ctx context.Context, tenant string) iter.Seq2[Entry[T], error] {
	return func(yield func(Entry[T], error) bool) {
		prefix, err := t.Prefix(tenant)
		if err != nil {
			yield(Entry[T]{}, err)
			return
		}
		req := ListRequest{Prefix: prefix}
		for {
			p, err := t.s.List(ctx, req)
			if err != nil {
				yield(Entry[T]{}, fmt.Errorf("list %s: %w", prefix, err))
				return
			}
			for _, r := range p.Records {
				e, err := t.Decode(r)
				if !yield(e, err) || err != nil {
					return
				}
			}
			if !p.More {
				return
			}
			req.At, req.After = p.Revision, p.Records[len(p.Records)-1].Key
		}
	}
}

// Prefix is what the keys of a tenant's entries begin with, or of all tenants
// when it is empty: for Watch.
func (t Table[T]) Prefix(tenant string) (string, error) {
	if tenant == "" {
		return t.kind + "/", nil
	}
	if err := checkPart("tenant", tenant); err != nil {
		return "", err
	}
	return t.kind + "/" + tenant + "/", nil
}

// Encode returns what is kept for v, for commits that change more than one
// record.
func (t Table[T]) Encode(v T) ([]byte, error) {
	b, err := cbor.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", t.kind, err)
	}
	return append([]byte{t.format}, b...), nil
}

// Decode reads a record of this table.
func (t Table[T]) Decode(r Record) (Entry[T], error) {
	e := Entry[T]{Record: r}
	kind, tenant, name, err := SplitKey(r.Key)
	if err != nil {
		return e, err
	}
	if kind != t.kind {
		return e, fmt.Errorf("%w: %q is no %s", ErrInvalid, r.Key, t.kind)
	}
	e.Tenant, e.Name = tenant, name
	if len(r.Value) == 0 {
		return e, fmt.Errorf("%s %q of tenant %s: %w: it is empty", t.kind, name, tenant, ErrInvalid)
	}
	e.format = r.Value[0]
	if err := cbor.Unmarshal(r.Value[1:], &e.Value); err != nil {
		return e, fmt.Errorf("%s %q of tenant %s does not decode: %w: %w", t.kind, name, tenant, ErrInvalid, err)
	}
	return e, nil
}
