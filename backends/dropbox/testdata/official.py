# SPDX-License-Identifier: Apache-2.0
"""Uses dropboxtest through Dropbox's own library, which checks each argument and
each answer against the published specification. Arguments: host:port, CA file."""
import datetime
import os
import sys
import threading

host, ca = sys.argv[1:3]
os.environ["REQUESTS_CA_BUNDLE"], os.environ["NO_PROXY"] = ca, "127.0.0.1"
for part in ("API", "API_CONTENT", "API_NOTIFY"):
    os.environ["DROPBOX_%s_HOST" % part] = host

import dropbox  # noqa: E402: it reads the environment
from dropbox import exceptions, files, sharing  # noqa: E402
from dropbox.files import CommitInfo, UploadSessionCursor, WriteMode  # noqa: E402

MIB = 1 << 20
session = dropbox.create_session(ca_certs=ca)
box = dropbox.Dropbox("sl.first", session=session, max_retries_on_error=0, max_retries_on_rate_limit=0)


def refused(kind, call, *args, **kw):
    """Returns the union that a call is refused with."""
    try:
        call(*args, **kw)
    except exceptions.ApiError as e:
        assert isinstance(e.error, kind), e.error
        return e.error
    raise AssertionError("%s%s was not refused" % (call.__name__, args))


assert box.users_get_current_account().email == "me@example.org"

# What the backend stored is there for sregistry.
meta, response = box.files_download("/vsoch/hello:1.0.sif")
assert response.content == b"pushed by sregfs" and meta.size == 16 and meta.path_display == "/vsoch/hello:1.0.sif", meta
assert meta.client_modified == datetime.datetime(2024, 2, 29, 12, 0), meta
assert meta.content_hash == box.files_get_metadata("/VSOCH/hello:1.0.sif").content_hash

# As sregistry stores: small in one request, large in a session, mode add.
box.files_upload(b"pushed by sregistry", "/vsoch/small:1.0.sif")
big = bytes(range(256)) * (9 * MIB // 256)
start = box.files_upload_session_start(big[:4 * MIB])
cursor = UploadSessionCursor(start.session_id, 4 * MIB)
wrong = refused(files.UploadSessionAppendError, box.files_upload_session_append_v2, b"x", UploadSessionCursor(start.session_id, 5))
assert wrong.is_incorrect_offset() and wrong.get_incorrect_offset().correct_offset == 4 * MIB, wrong
box.files_upload_session_append_v2(big[4 * MIB:8 * MIB], cursor)
cursor.offset = 8 * MIB
f = box.files_upload_session_finish(big[8 * MIB:], cursor, CommitInfo(path="/vsoch/big:1.0.sif"))
assert f.size == len(big), f
gone = refused(files.UploadSessionFinishError, box.files_upload_session_finish, b"", cursor, CommitInfo(path="/vsoch/big:2.0.sif"))
assert gone.is_lookup_failed() and gone.get_lookup_failed().is_not_found(), gone

# A session with parallel pieces.
kind = files.UploadSessionType.concurrent
assert refused(files.UploadSessionStartError, box.files_upload_session_start, b"x", session_type=kind).is_concurrent_session_data_not_allowed()
sid = box.files_upload_session_start(b"", session_type=kind).session_id
box.files_upload_session_append_v2(big[8 * MIB:], UploadSessionCursor(sid, 8 * MIB), close=True)
assert refused(files.UploadSessionAppendError, box.files_upload_session_append_v2, big[:4 * MIB], UploadSessionCursor(sid, 0)).is_closed()
missing = refused(files.UploadSessionFinishError, box.files_upload_session_finish, b"", UploadSessionCursor(sid, len(big)), CommitInfo(path="/a"))
assert missing.is_concurrent_session_missing_data(), missing
sid = box.files_upload_session_start(b"", session_type=kind).session_id
odd = refused(files.UploadSessionAppendError, box.files_upload_session_append_v2, b"x", UploadSessionCursor(sid, 0))
assert odd.is_concurrent_session_invalid_data_size(), odd

# Write modes.
conflict = refused(files.UploadError, box.files_upload, b"other", "/vsoch/small:1.0.sif")
assert conflict.is_path() and conflict.get_path().reason.get_conflict().is_file(), conflict
same = box.files_upload(b"pushed by sregistry", "/vsoch/small:1.0.sif")  # identical: no conflict unless strict
refused(files.UploadError, box.files_upload, b"pushed by sregistry", "/vsoch/small:1.0.sif", strict_conflict=True)
new = box.files_upload(b"pushed by sregistry, 2", "/vsoch/small:1.0.sif", WriteMode.update(same.rev))
assert new.rev != same.rev and new.id == same.id, new
refused(files.UploadError, box.files_upload, b"3", "/vsoch/small:1.0.sif", WriteMode.update(same.rev), strict_conflict=True)
assert box.files_upload(b"4", "/VSOCH/SMALL:1.0.sif", WriteMode.overwrite).name == "small:1.0.sif"
assert box.files_download("rev:" + same.rev)[1].content == b"pushed by sregistry"
box.files_restore("/vsoch/small:1.0.sif", same.rev)
assert refused(files.UploadError, box.files_upload, b"", "/vsoch/desktop.ini").get_path().reason.is_disallowed_name()
assert refused(files.UploadError, box.files_upload, b"", "/vsoch/dot.").get_path().reason.is_malformed_path()
assert refused(files.UploadError, box.files_upload, b"", "/vsoch").get_path().reason.get_conflict().is_folder()

# Listings, their pages, and what changes after them.
page = box.files_list_folder("")
assert [e.name for e in page.entries] == ["vsoch"] and isinstance(page.entries[0], files.FolderMetadata), page
for i in range(7):
    box.files_upload(b"x", "/größe/bild:%d.sif" % i)
page, names = box.files_list_folder("/GRÖSSE".replace("SS", "ß")), []
while True:
    names += [e.name for e in page.entries]
    if not page.has_more:
        break
    page = box.files_list_folder_continue(page.cursor)
assert names == ["bild:%d.sif" % i for i in range(7)], names
late = threading.Timer(0.2, lambda: box.files_delete_v2("/größe/bild:3.sif"))
late.start()
assert box.files_list_folder_longpoll(page.cursor, timeout=30).changes
late.join()
delta = box.files_list_folder_continue(page.cursor)
assert [type(e) for e in delta.entries] == [files.DeletedMetadata] and not delta.has_more, delta
assert refused(files.ListFolderContinueError, box.files_list_folder_continue, "AAGnone").is_reset()
assert refused(files.ListFolderError, box.files_list_folder, "/none").get_path().is_not_found()
assert refused(files.ListFolderError, box.files_list_folder, "/vsoch/big:1.0.sif").get_path().is_not_folder()
cursor = box.files_list_folder_get_latest_cursor("", recursive=True).cursor
box.files_create_folder_v2("/new/deep")
assert [e.path_display for e in box.files_list_folder_continue(cursor).entries] == ["/new", "/new/deep"]
assert refused(files.CreateFolderError, box.files_create_folder_v2, "/NEW").get_path().get_conflict().is_folder()

# Deletes by rev.
assert refused(files.DeleteError, box.files_delete_v2, "/vsoch/big:1.0.sif", parent_rev="fffffffff").get_path_write().get_conflict().is_file()
assert refused(files.DeleteError, box.files_delete_v2, "/none").get_path_lookup().is_not_found()
assert box.files_delete_v2("/vsoch/big:1.0.sif", parent_rev=f.rev).metadata.rev == f.rev
assert refused(files.GetMetadataError, box.files_get_metadata, "/vsoch/big:1.0.sif").get_path().is_not_found()
assert refused(files.DownloadError, box.files_download, "/vsoch").get_path().is_not_file()

# Search and links.
found = box.files_search_v2("bild", options=files.SearchOptions(max_results=4, filename_only=True))
assert len(found.matches) == 3 and found.has_more, found  # the page size of this server
total = len(found.matches)
while found.has_more:
    found = box.files_search_continue_v2(found.cursor)
    total += len(found.matches)
assert total == 6 and found.matches[0].metadata.get_metadata().name.startswith("bild"), found
link = box.sharing_create_shared_link_with_settings("/größe/bild:1.sif")
assert isinstance(link, sharing.FileLinkMetadata), link
again = refused(sharing.CreateSharedLinkWithSettingsError, box.sharing_create_shared_link_with_settings, "/größe/bild:1.sif")
assert again.is_shared_link_already_exists(), again
assert [x.url for x in box.sharing_list_shared_links("/größe/bild:1.sif", direct_only=True).links] == [link.url]

# Logins.
bad = dropbox.Dropbox("sl.wrong", session=session)
try:
    bad.files_list_folder("")
    raise AssertionError("a wrong token is taken")
except exceptions.AuthError as e:
    assert e.error.is_invalid_access_token(), e
fresh = dropbox.Dropbox(oauth2_refresh_token="refresh-me", app_key="app", session=session)
assert fresh.files_list_folder("").entries
print("checked")
