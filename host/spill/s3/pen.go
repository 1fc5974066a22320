package s3

import (
	"bytes"
	"context"
	"crypto/md5" //nolint:gosec // what the protocol has against damage on the way
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/minio/minio-go/v7"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/spill"
)

// Bounds of an upload. The protocol has 10,000 parts at most, all but the last
// of 5 MiB and more.
const (
	partSize = 8 << 20
	maxParts = 9000
)

// pen is a batch in the bucket.
type pen struct {
	b        *Bucket
	key      string
	partSize int64

	queue  []spill.Chunk // not sent
	queued int64
	upload string // of more than one part
	parts  []minio.CompletePart
	size   int64
	etag   string
	sent   bool // there may be an object
}

// String implements spill.Pen.
func (p *pen) String() string { return Scheme + p.b.bucket + "/" + p.key }

// File implements spill.Pen: there is none.
func (p *pen) File() (*os.File, error) { return nil, nil }

// Write implements spill.Pen. It sends what is enough for a part.
func (p *pen) Write(ctx context.Context, w []spill.Chunk, last bool) (keeps bool, err error) {
	for _, c := range w {
		p.queue = append(p.queue, c)
		p.queued += c.Len
	}
	if last && p.upload == "" {
		return false, p.putWhole(ctx)
	}
	if p.queued >= p.partSize || last && p.queued > 0 {
		if err := p.putPart(ctx); err != nil {
			return true, err
		}
	}
	if last {
		return false, p.complete(ctx)
	}
	return p.queued > 0, nil
}

// take returns what is queued as one body, with its checksum.
func (p *pen) take() (body *chunks, sum string, err error) {
	body = &chunks{list: p.queue, size: p.queued}
	h := md5.New() //nolint:gosec // see the import
	if _, err := io.Copy(h, body); err != nil {
		return nil, "", fmt.Errorf("write %s: %w", p, err)
	}
	p.queue, p.queued = nil, 0
	return body, base64.StdEncoding.EncodeToString(h.Sum(nil)), nil
}

func (p *pen) putWhole(ctx context.Context) error {
	body, sum, err := p.take()
	if err != nil {
		return err
	}
	p.sent = true
	return p.b.do(ctx, "write", p.key, body.size, func(ctx context.Context) error {
		body.rewind()
		u, err := p.b.core.PutObject(ctx, p.b.bucket, p.key, body, body.size, sum, "", minio.PutObjectOptions{})
		p.etag, p.size = u.ETag, body.size
		return err
	})
}

func (p *pen) putPart(ctx context.Context) error {
	if p.upload == "" {
		if err := p.b.do(ctx, "begin", p.key, 0, func(ctx context.Context) (err error) {
			p.upload, err = p.b.core.NewMultipartUpload(ctx, p.b.bucket, p.key, minio.PutObjectOptions{})
			return err
		}); err != nil {
			return err
		}
	}
	body, sum, err := p.take()
	if err != nil {
		return err
	}
	return p.b.do(ctx, fmt.Sprintf("write part %d of", len(p.parts)+1), p.key, body.size, func(ctx context.Context) error {
		body.rewind()
		part, err := p.b.core.PutObjectPart(ctx, p.b.bucket, p.key, p.upload, len(p.parts)+1, body, body.size, minio.PutObjectPartOptions{Md5Base64: sum})
		if err == nil {
			p.parts = append(p.parts, minio.CompletePart{PartNumber: part.PartNumber, ETag: part.ETag})
			p.size += body.size
		}
		return err
	})
}

func (p *pen) complete(ctx context.Context) error {
	p.sent = true
	return p.b.do(ctx, "complete", p.key, 0, func(ctx context.Context) error {
		u, err := p.b.core.CompleteMultipartUpload(ctx, p.b.bucket, p.key, p.upload, p.parts, minio.PutObjectOptions{})
		if err == nil {
			p.etag, p.upload = u.ETag, ""
		}
		return err
	})
}

// Read implements spill.Pen. What is read is of the object that was written, and
// of the range that was asked for, or it is an error.
func (p *pen) Read(ctx context.Context, to []byte, off int64) (int, error) {
	n := min(int64(len(to)), p.size-off)
	if n <= 0 {
		return 0, io.EOF
	}
	err := p.b.do(ctx, "read", p.key, n, func(ctx context.Context) error {
		var o minio.GetObjectOptions
		if err := errors.Join(o.SetRange(off, off+n-1), o.SetMatchETag(strings.Trim(p.etag, `"`))); err != nil {
			return err
		}
		body, _, head, err := p.b.core.GetObject(ctx, p.b.bucket, p.key, o)
		if err != nil {
			return err
		}
		defer body.Close()
		if err := checkRange(head.Get("Content-Range"), off, n, p.size); err != nil {
			return err
		}
		_, err = io.ReadFull(body, to[:n])
		return err
	})
	if err != nil {
		return 0, err
	}
	return int(n), nil
}

// errRange says that a server sent what was not asked for.
var errRange = errors.New("the server sent another range")

// checkRange reports whether a Content-Range is of n bytes at off of an object
// of so many.
func checkRange(s string, off, n, size int64) error {
	var from, to, of int64
	if k, err := fmt.Sscanf(s, "bytes %d-%d/%d", &from, &to, &of); k != 3 || err != nil || from != off || to != off+n-1 || of != size {
		return fmt.Errorf("%w: %q for %d bytes at %d of %d", errRange, s, n, off, size)
	}
	return nil
}

// Punch implements spill.Pen: an object goes as a whole.
func (p *pen) Punch(int64, int64) {}

// Size implements spill.Pen.
func (p *pen) Size(written int64) int64 { return written }

// Remove implements spill.Pen, in the background.
func (p *pen) Remove() {
	p.queue = nil
	if p.upload != "" || p.sent {
		p.b.bury(remains{key: p.key, upload: p.upload, object: p.sent})
	}
}

// chunks is a body that is read where it lies.
type chunks struct {
	list []spill.Chunk
	size int64
	at   int64
}

func (c *chunks) rewind() { c.at = 0 }

// Read implements io.Reader.
func (c *chunks) Read(b []byte) (int, error) {
	skip := c.at
	for _, k := range c.list {
		if skip >= k.Len {
			skip -= k.Len
			continue
		}
		part := b[:min(int64(len(b)), k.Len-skip)]
		var n int
		var err error
		if k.File == nil {
			n, err = bytes.NewReader(k.Data).ReadAt(part, skip)
		} else {
			n, err = k.File.ReadAt(part, k.Off+skip)
		}
		c.at += int64(n)
		if n > 0 {
			return n, nil
		}
		return 0, &wray.Error{Code: wray.CodeInternal, Message: fmt.Sprintf("the memory to be written ends early: %v", err)}
	}
	return 0, io.EOF
}

// Seek implements io.Seeker.
func (c *chunks) Seek(off int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		off += c.at
	case io.SeekEnd:
		off += c.size
	}
	if off < 0 || off > c.size {
		return 0, errors.New("seek outside the body")
	}
	c.at = off
	return off, nil
}
