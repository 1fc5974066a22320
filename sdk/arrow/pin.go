//go:build pins

package arrow

// No code of ours uses thrift. Arrow's Parquet reader does, which we do not
// link; it asks for a release with a known flaw (CVE-2026-41602), and this
// import keeps go.mod asking for one without.
import _ "github.com/apache/thrift/lib/go/thrift"
