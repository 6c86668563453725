-- The audio bucket and who may touch it. The tables are made by the storage server when it first starts.
select public.ambara_admit();
insert into storage.buckets (id, name, public) values ('clips', 'clips', false) on conflict (id) do nothing;

drop policy if exists "Signed-in people hear clips" on storage.objects;
create policy "Signed-in people hear clips" on storage.objects
  for select to authenticated using (bucket_id = 'clips');
drop policy if exists "Signed-in people add audio" on storage.objects;
create policy "Signed-in people add audio" on storage.objects
  for insert to authenticated with check (bucket_id = 'clips');
drop policy if exists "Signed-in people replace audio" on storage.objects;
create policy "Signed-in people replace audio" on storage.objects
  for update to authenticated using (bucket_id = 'clips');
