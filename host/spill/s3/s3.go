// Package s3 keeps batches of an object store in a bucket, at Amazon or whoever
// speaks its protocol. A process that runs guests has neither a network nor
// credentials: the node does this for it, out of memory that it is given.
//
// # Names
//
// A batch is the object PREFIX/INCARNATION/NUMBER. The incarnation is drawn when
// the bucket is opened, so nothing is ever read that another process has
// written, or this one in an earlier life. Beside the batches lies the
// incarnation's lease, written again every ten minutes. Whoever opens a bucket
// removes incarnations of which nothing was written for an hour: their node is
// dead. A node that ends in order removes all that is its own.
//
// # Failures
//
// Every request has a time limit, and is made again, ever later, while the
// server does not answer, answers with 5xx or 429, or breaks off, for a minute
// in all. What is not worth another attempt, and what was tried for that long,
// is a *wray.Error that names bucket and key and says what to do.
package s3

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/wray-project/wray/host/spill"
)

// Scheme begins what names a bucket: s3://BUCKET/PREFIX.
const Scheme = "s3://"

// Config says where a bucket is. What is empty is taken from the environment, as
// the tools of Amazon do.
type Config struct {
	URL         string // s3://BUCKET or s3://BUCKET/PREFIX
	Endpoint    string // URL of the server; else $AWS_ENDPOINT_URL_S3, $AWS_ENDPOINT_URL, Amazon's
	Region      string // else $AWS_REGION, $AWS_DEFAULT_REGION, us-east-1
	Credentials string // a file as ~/.aws/credentials; else $AWS_ACCESS_KEY_ID and its kin, and that file

	limits limits
}

// limits are what tests shorten.
type limits struct {
	patience time.Duration // of one operation, with all its attempts
	attempt  time.Duration // of one attempt, and as much again for each 2 MiB
	pause    time.Duration // before the second attempt; doubled for each, up to 5 s
	renew    time.Duration // of the lease
	dead     time.Duration // since when an incarnation was silent that is dead
}

func (l *limits) ensureDefaults() {
	def := limits{patience: time.Minute, attempt: 30 * time.Second, pause: 200 * time.Millisecond, renew: 10 * time.Minute, dead: time.Hour}
	for _, d := range []struct{ p, def *time.Duration }{{&l.patience, &def.patience}, {&l.attempt, &def.attempt}, {&l.pause, &def.pause}, {&l.renew, &def.renew}, {&l.dead, &def.dead}} {
		if *d.p == 0 {
			*d.p = *d.def
		}
	}
}

// Bucket is a place for batches. Close it.
type Bucket struct {
	core        *minio.Core
	limits      limits
	endpoint    string
	bucket      string
	prefix      string // ends in a slash, or is empty
	incarnation string
	last        atomic.Int64

	ctx    context.Context // ends with the bucket
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex
	dead   []remains // guarded by mu; to be removed
	wake   chan struct{}
	closed bool          // guarded by mu
	ending chan struct{} // closed with closed
}

// remains is what is left of a batch.
type remains struct {
	key    string
	upload string // of one that was never completed
	object bool   // there may be an object
}

// Open opens a bucket, which must be there, says so by a first object, and
// begins to remove what the dead have left.
func Open(ctx context.Context, c Config) (*Bucket, error) {
	c.limits.ensureDefaults()
	bucket, prefix, err := parseURL(c.URL)
	if err != nil {
		return nil, err
	}
	endpoint := first(c.Endpoint, os.Getenv("AWS_ENDPOINT_URL_S3"), os.Getenv("AWS_ENDPOINT_URL"))
	lookup := minio.BucketLookupAuto
	if endpoint == "" {
		endpoint = "https://s3.amazonaws.com"
	} else {
		lookup = minio.BucketLookupPath
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || strings.Trim(u.Path, "/") != "" {
		return nil, fmt.Errorf("%q is no address of an S3 server: expected http://HOST:PORT or https://HOST", endpoint)
	}
	creds, err := credentialsOf(c.Credentials)
	if err != nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.ResponseHeaderTimeout = c.limits.attempt
	transport.MaxIdleConnsPerHost = 16
	transport.DisableCompression = true
	core, err := minio.NewCore(u.Host, &minio.Options{
		Creds: creds, Secure: u.Scheme == "https", Transport: transport, BucketLookup: lookup, MaxRetries: 1,
		Region: first(c.Region, os.Getenv("AWS_REGION"), os.Getenv("AWS_DEFAULT_REGION"), "us-east-1"),
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.URL, err)
	}
	var id [8]byte
	if _, err := rand.Read(id[:]); err != nil {
		return nil, fmt.Errorf("draw an incarnation: %w", err)
	}
	b := &Bucket{core: core, limits: c.limits, endpoint: endpoint, bucket: bucket, prefix: prefix, incarnation: hex.EncodeToString(id[:]), wake: make(chan struct{}, 1), ending: make(chan struct{})}
	if err := b.renew(ctx); err != nil {
		return nil, err
	}
	b.ctx, b.cancel = context.WithCancel(context.WithoutCancel(ctx))
	b.wg.Go(b.keepLease)
	b.wg.Go(b.removeDead)
	return b, nil
}

func first(s ...string) string {
	for _, s := range s {
		if s != "" {
			return s
		}
	}
	return ""
}

// parseURL takes s3://BUCKET/PREFIX apart.
func parseURL(s string) (bucket, prefix string, err error) {
	rest, ok := strings.CutPrefix(s, Scheme)
	bucket, prefix, _ = strings.Cut(rest, "/")
	if !ok || bucket == "" || strings.ContainsAny(bucket, "?#@:") {
		return "", "", fmt.Errorf("%q names no bucket: expected s3://BUCKET or s3://BUCKET/PREFIX", s)
	}
	if prefix = strings.Trim(prefix, "/"); prefix != "" {
		prefix += "/"
	}
	return bucket, prefix, nil
}

// credentialsOf returns those of a file, or of the environment.
func credentialsOf(file string) (*credentials.Credentials, error) {
	var c *credentials.Credentials
	where := "$AWS_ACCESS_KEY_ID and $AWS_SECRET_ACCESS_KEY, or ~/.aws/credentials"
	if file != "" {
		c, where = credentials.NewFileAWSCredentials(file, ""), file
	} else {
		c = credentials.NewChainCredentials([]credentials.Provider{&credentials.EnvAWS{}, &credentials.FileAWSCredentials{}})
	}
	v, err := c.GetWithContext(nil)
	if err != nil {
		return nil, fmt.Errorf("credentials for S3: %w", err)
	}
	if v.AccessKeyID == "" || v.SecretAccessKey == "" {
		return nil, fmt.Errorf("there are no credentials for S3 in %s", where)
	}
	return c, nil
}

// Name implements spill.Place.
func (b *Bucket) Name() string {
	return Scheme + b.bucket + "/" + strings.TrimSuffix(b.prefix, "/") + " at " + b.endpoint
}

// Remote implements spill.Place.
func (b *Bucket) Remote() bool { return true }

// Create implements spill.Place. Nothing is sent before there is something to
// write.
func (b *Bucket) Create(n int64) (spill.Pen, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, errors.New("the bucket is closed")
	}
	p := &pen{b: b, key: keyOf(b.prefix, b.incarnation, b.last.Add(1))}
	p.partSize = max(partSize, (n/maxParts+1<<20-1)>>20<<20)
	return p, nil
}

// Close removes all that is this process's, as far as the server lets it within
// a time, and ends.
func (b *Bucket) Close() {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return
	}
	b.closed = true
	close(b.ending)
	b.mu.Unlock()
	b.bury(remains{key: leaseKey(b.prefix, b.incarnation), object: true})
	limit := time.AfterFunc(b.limits.attempt, b.cancel)
	defer limit.Stop()
	b.wg.Wait()
	b.cancel()
}

// bury has what is left of a batch removed, in the background.
func (b *Bucket) bury(r remains) {
	b.mu.Lock()
	b.dead = append(b.dead, r)
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// removeDead removes what is dead, until the bucket is closed.
func (b *Bucket) removeDead() {
	for {
		b.mu.Lock()
		dead, closed := b.dead, b.closed
		b.dead = nil
		b.mu.Unlock()
		for _, r := range dead {
			// What cannot be removed is left, to be removed by who opens the bucket
			// when this process has been silent for long.
			_ = b.remove(b.ctx, r)
		}
		if closed && len(dead) == 0 {
			return
		}
		if !closed {
			select {
			case <-b.wake:
			case <-b.ctx.Done():
				return
			}
		}
	}
}

func (b *Bucket) remove(ctx context.Context, r remains) error {
	var errs []error
	gone := func(err error) error {
		if status, _ := statusOf(err); status == http.StatusNotFound {
			return nil // somebody was quicker
		}
		return err
	}
	if r.upload != "" {
		errs = append(errs, b.do(ctx, "give up", r.key, 0, func(ctx context.Context) error {
			return gone(b.core.AbortMultipartUpload(ctx, b.bucket, r.key, r.upload))
		}))
	}
	if r.object {
		errs = append(errs, b.do(ctx, "remove", r.key, 0, func(ctx context.Context) error {
			return gone(b.core.RemoveObject(ctx, b.bucket, r.key, minio.RemoveObjectOptions{}))
		}))
	}
	return errors.Join(errs...)
}
